"""YAML → frozen models: what an operator may write, what is refused and why.

``load.load_config`` is the way in; ``models.Config`` is what comes out.  Nothing here talks to the world.
"""
