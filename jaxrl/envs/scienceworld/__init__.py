"""ScienceWorld's thirty tasks, played on its own simulator in a Java machine."""
