"""Workers and the consensus as Ray actors."""

from pisa_ray.actors.fleet import RayFleet
from pisa_ray.actors.placement import place
from pisa_ray.actors.session import RayResources, ray_session, room

__all__ = ["RayFleet", "RayResources", "place", "ray_session", "room"]
