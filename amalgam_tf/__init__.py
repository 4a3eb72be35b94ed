"""amalgam_tf: one compact student from a pool of trained teachers, without labels.

Importing this package is cheap: TensorFlow is loaded by the rooms that need it, not here.
"""

__version__ = "0.1.0"
