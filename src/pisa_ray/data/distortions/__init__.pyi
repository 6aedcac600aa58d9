from .distortion import Distortion as Distortion
from .distortion import Origin as Origin
from .images import Recolour as Recolour
from .images import Rotate as Rotate
from .noise import Noise as Noise
from .shift_labels import ShiftLabels as ShiftLabels
