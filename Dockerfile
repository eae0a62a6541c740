# A GPU:      docker build --tag dinov2-noise .
# CPU only:   docker build --build-arg BASE=ubuntu:24.04 --build-arg TORCH_INDEX=ADDRESS --tag dinov2-noise:cpu .
# docs/install.md says how to run it and what ADDRESS is. Not built where it was written: a test compares it with requirements/ and the Makefile.
ARG BASE=nvidia/cuda:12.6.3-base-ubuntu24.04
FROM ${BASE}

# Torch's wheels bring CUDA, so the base image only names what it wants of the driver.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/dinov2-noise
# The large wheels first: they stay as they are when the code changes.
ARG TORCH_INDEX=
COPY requirements/ requirements/
RUN pip install -r requirements/torch.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY dinov2_noise/ dinov2_noise/
COPY vendor/ vendor/
RUN pip install -c requirements/torch.txt '.[demo,dicom,fits,safetensors,tiff]'
# Upstream's first release, so that the image trains without a checkout; PYTHONPATH=/your/checkout comes before it.
RUN pip install --no-deps --require-hashes -r requirements/dinov2-wheel.txt \
    && cd /opt/venv \
    && dinov2-noise patch "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
COPY configs/ configs/

RUN useradd --create-home --uid 1001 dino
USER dino
WORKDIR /home/dino
ENTRYPOINT ["dinov2-noise"]
CMD ["doctor"]
