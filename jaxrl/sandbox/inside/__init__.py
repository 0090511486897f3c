"""What runs inside the sandbox: the standard library only.

The names keep their prefix, because these files are imported without their package, beside the modules of a
program that a model wrote.
"""
