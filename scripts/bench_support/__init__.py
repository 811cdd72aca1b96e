"""What ``scripts/bench`` runs. Nothing here is part of the package.

An upstream process answers on loopback, and every client has a process of its own that has imported nothing but that
client. The process that runs this package's ``__main__`` only tells them what to do, one at a time, and prints.
"""
