"""HTTP handlers. They translate between HTTP and the rooms above, and decide nothing."""
