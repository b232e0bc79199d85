"""Starting projects: in the foreground, in the background, in this process."""
