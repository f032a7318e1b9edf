from tools import search
