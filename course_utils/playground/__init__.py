"""The playground: two networks side by side, trained before your eyes."""

from course_utils.playground.panel import Playground

__all__ = ["Playground"]
