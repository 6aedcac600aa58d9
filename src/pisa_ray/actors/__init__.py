"""Workers and the consensus as Ray actors."""

from pisa_ray.actors.asynchronous import AsynchronousFleet
from pisa_ray.actors.elastic import Wanted
from pisa_ray.actors.fleet import RayFleet
from pisa_ray.actors.session import RayResources, ray_session

__all__ = ["AsynchronousFleet", "RayFleet", "RayResources", "Wanted", "ray_session"]
