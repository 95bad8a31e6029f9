import numpy as np
from numpy.typing import NDArray

def build_double_array(keys: list[bytes], values: NDArray[np.int32]) -> bytes: ...
