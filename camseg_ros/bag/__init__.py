"""Bags of camera images: made, read, evaluated, and replayed into the node (needs rclpy)."""
