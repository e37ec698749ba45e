# docker build -t dsfp_env .
# docker run --rm -v dsfp_cache:/cache -v dsfp_runs:/home/dsfp/runs dsfp_env python -m train_agents
#
# For a GPU, either the wheels of a CUDA release, or an image that has torch already; then docker run --gpus all:
# docker build -t dsfp_env --build-arg TORCH=https://download.pytorch.org/whl/cu128 .
# docker build -t dsfp_env --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime .
ARG BASE=python:3.12-slim
FROM ${BASE}

ARG TORCH=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/dsfp_env/bin:$PATH PYTHONUNBUFFERED=1

# gcc: batch normalisation is compiled on first use. Versions are the newest that pyproject.toml allows.
# hadolint ignore=DL3008,DL3013
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/dsfp_env \
    && pip install --no-cache-dir --index-url "${TORCH}" 'torch>=2.6' torchvision

COPY . /src
RUN pip install --no-cache-dir /src \
    && useradd --uid 10001 --create-home dsfp \
    && mkdir -p /cache /home/dsfp/runs \
    && chown -R dsfp /cache /home/dsfp

USER 10001
WORKDIR /home/dsfp
ENV DSFP_ENV_CACHE=/cache
VOLUME ["/cache", "/home/dsfp/runs"]
CMD ["python", "-m", "train_agents", "--help"]
