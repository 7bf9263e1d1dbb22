"""An OSS server for tests: it checks V1 and V4 signatures, STS tokens, MD5 and CRC64, and speaks OSS's XML.

Written from Alibaba Cloud's public API reference; it shows that the plugin agrees with that text and with the
vendor's SDKs, not that Alibaba's servers would answer the same.

    python -m oss_emulator 8080    # for benchmarks: prints its settings, ends with its standard input
"""

from oss_emulator.metadata import MetadataService
from oss_emulator.server import Emulator

__all__ = ["Emulator", "MetadataService"]
