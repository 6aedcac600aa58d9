"""The errors that the library raises on purpose."""


class PisaError(Exception):
    """The base class of all errors that pisa_ray raises on purpose; the text is one sentence for people."""


class ConfigError(PisaError, ValueError):
    """A setting, a file or a data set cannot be used. The text names the key, what was expected and the remedy."""


class NonFiniteError(PisaError):
    """Training produced a NaN or an infinity; the last good checkpoint is kept."""


class ExplodedError(NonFiniteError):
    """The loss has risen far above that of the first round, because sigma is too small."""


class WorkerDiedError(PisaError):
    """A process of the run has died; the run can be resumed from its last checkpoint."""


class StatesLostError(WorkerDiedError):
    """Shards' states cannot be rebuilt from memory, so the whole run goes on from its last checkpoint."""


class RayLostError(PisaError):
    """Ray's own processes on this machine have died; a new process can resume the run from its last checkpoint."""


class StoppedWaitingError(PisaError):
    """The user stopped the run while it waited for workers; its last checkpoint is kept."""
