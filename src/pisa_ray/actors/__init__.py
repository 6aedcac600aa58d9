"""Workers and the consensus as Ray actors."""

from pisa_ray.actors.elastic import Staffing, Wanted
from pisa_ray.actors.fleet import RayFleet
from pisa_ray.actors.session import RayResources, ray_session
from pisa_ray.actors.sites import Sites

__all__ = ["RayFleet", "RayResources", "Sites", "Staffing", "Wanted", "ray_session"]
