import config
