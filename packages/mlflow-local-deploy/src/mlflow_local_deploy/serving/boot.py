"""The script that a worker's Python runs: makes this package importable there, and nothing else beside it.

The model's environment need not have this package, and must not see the other packages that stand next to it.
"""

import importlib.util
import os
import sys
from pathlib import Path


def package() -> None:
    """Import `mlflow_local_deploy` from the folder that this file is in."""
    folder = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    environ = dict(os.environ)
    # A script's own folder comes first on the path: its modules would hide the model's of the same name.
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).resolve().parent)]
    package()
    from mlflow_local_deploy.serving.worker import main

    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), environ)
