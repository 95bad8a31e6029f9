"""pyarrow, typed as Any.

Its third-party stubs lack overloads that are used here and reject calls that are right; types of our own
begin where values leave Arrow.
"""

from __future__ import annotations

from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

pa: Any = pyarrow
pc: Any = pyarrow.compute
pq: Any = pyarrow.parquet
