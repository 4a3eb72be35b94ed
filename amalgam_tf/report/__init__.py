"""Results as tables and figures: of one run (`run.py`), and of several beside each other and beside the papers (`comparison.py`).

The only numbers made here are medians, differences and intervals by resampling; everything else is shown as the runs measured it.
"""

from amalgam_tf.report.comparison import compare
from amalgam_tf.report.run import summary, table, write

__all__ = ["compare", "summary", "table", "write"]
