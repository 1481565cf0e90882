"""Package of CheXScale: one pipeline from a folder of chest radiographs to a versioned, quantised, served classifier.

The exact versions are in requirements.lock. This file has only the direct dependencies, with the pins that have a
reason (docs/environment.md). Horovod is not in the lock because jobs/setup builds it from source.
"""

from setuptools import find_packages, setup

CORE = ["jsonargparse[signatures]", "numpy<2", "pandas<3", "pyyaml", "rich", "tqdm", "psutil"]
# Each release needs one release of fsspec. Without a bound, pip would take a new fsspec and a very old s3fs.
S3FS = "s3fs>=2026"
# What turns a file into the pixels that a model sees.
DECODERS = [
    "kornia-rs",
    "opencv-python-headless",
    "pillow",
    "pydicom",
    "python-gdcm",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    # The weights of the classifiers that find lungs.
    "lungs-finder",
]
EXTRAS = {
    "etl": [
        "pyspark==4.0.5",
        "delta-spark==4.4.0",
        "deltalake",
        "pyarrow==14.0.2",
        *DECODERS,
        "universal-pathlib",
        S3FS,
        "jinja2",
        "markupsafe",
        "matplotlib",
    ],
    "training": [
        "torch==2.15.0",
        "torchvision==0.29.2",
        "timm",
        "petastorm==0.12.1",
        "pyarrow==14.0.2",
        "deltalake",
        "universal-pathlib",
        S3FS,
        "mlflow==3.17.2",
        "scikit-learn",
        # Apache-2.0 from 2.8 on; 2.7 was under the AGPL.
        "cleanlab>=2.9",
        "opencv-python-headless",
        "matplotlib",
        "tensorboard",
        "nvidia-ml-py",
        "pip",
        "setuptools",
        "wheel",
        "packaging",
        "cffi",
        "cloudpickle",
    ],
    "inference": [
        "openvino",
        "nncf",
        "onnx",
        "onnxscript",
        "onnxruntime",
        # Registering prepares its reference films as serving does.
        *DECODERS,
        "mlflow==3.17.2",
        "scikit-learn",
        "matplotlib",
    ],
    "serving": [
        "openvino",
        # The part of mlflow that queries a registry, and what it needs to query a database file: a third of the whole.
        "mlflow-skinny==3.17.2",
        "sqlalchemy",
        "alembic",
        "fastapi",
        "uvicorn",
        "python-multipart",
        "prometheus-client",
        "universal-pathlib",
        *DECODERS,
        "requests",
    ],
    # An MLflow server, and its client for an object store.
    "server": ["mlflow==3.17.2", "boto3"],
    # Clients of stores, which set-up does not install.
    "azure": ["adlfs"],
    "gcs": ["gcsfs"],
    "dev": [
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        "hypothesis",
        "ruff",
        "import-linter",
        "httpx",
        "playwright",
        "schemathesis",
    ],
}

setup(
    name="chexscale",
    version="0.1.0",
    description="From a folder of chest radiographs to a versioned, quantised, served classifier",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["conf*", "etl*", "training*", "inference*", "jobs*"], exclude=["jobs.benchmarks*"]),
    package_data={
        "conf": ["*.yaml", "spark/*", "studies/*.yaml"],
        "etl.card": ["*.j2"],
        "etl.contract": ["*.yaml"],
        "inference.service": ["page/*"],
        "jobs.setup": ["*.txt"],
        "jobs.studies": ["*.yaml"],
    },
    entry_points={
        "console_scripts": ["chexscale=jobs.chexscale:main"],
        # A task of a Databricks job finds it by its name, in any group.
        "packages": ["task=jobs.chexscale:task"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
)
