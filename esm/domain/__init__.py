"""The rules: what to send, what to retry, what to give up and what may be forgotten.

Standard library and msgspec only.  Nothing here waits, reads a clock or opens a socket: time, fresh ids and chance are
arguments, so each rule can be read and tested as a sentence.
"""
