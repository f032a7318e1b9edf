import os


def key():
    return os.environ["OPENAI_API_KEY"]


KEY = key()
