"""Print the lower bounds of pyproject.toml as versions to install: ``numpy==2.0``, and so on.

For `make test-lowest`. Left out: torch, of which earlier builds from PyPI bring gigabytes of CUDA
(the Makefile's variable `TORCH` says which one is tested), what no test imports, and what does no
more than read exports or an encoder's file.
"""

import tomllib
from pathlib import Path

LEFT_OUT = tuple(
    f"{name}>="
    for name in (
        *("torch", "mypy", "ruff", "playwright", "diffusers", "transformers", "urllib3"),
        *("datasets", "onnx", "onnxruntime", "webdataset"),
    )
)

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in sorted({*project["dependencies"], *extras["s3"], *extras["test"]}):
    if not requirement.startswith(LEFT_OUT):
        # boto3 in the version of aiobotocore's botocore: else pip tries one after the other.
        print(requirement.replace(">=", "==").replace("s3fs==", "s3fs[boto3]=="))
