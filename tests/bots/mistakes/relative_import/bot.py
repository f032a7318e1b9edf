from .helpers import x
