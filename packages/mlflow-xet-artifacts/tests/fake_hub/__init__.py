"""A Hub for tests: the part of the Hub's HTTP API that the plugin uses, in front of hf_xet's own local storage."""

from fake_hub.server import FakeHub

__all__ = ["FakeHub"]
