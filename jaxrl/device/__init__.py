"""The one place that knows devices: the mesh and the table of shardings, memory, compilations."""
