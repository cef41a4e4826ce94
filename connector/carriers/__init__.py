"""The carriers: the interface (`carrier.py`), parts that several of them share, and one package for each carrier.

Pure: text in, events out; commands in, text out.
"""
