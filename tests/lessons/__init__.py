"""Typical wrong answers to the exercises, a file for each lesson: exercise -> [(code, part of the hint it meets)]."""
