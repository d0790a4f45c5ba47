# One file, two images that share their largest layer, torch:
#
#   docker build --target service -t turnpoint-service:0.1.0 .      answers requests
#   docker build --target trainer -t turnpoint-trainer:0.1.0 .      trains and publishes
#
# docs/operations.md says which arguments make a small CPU image and which a CUDA image. Packages come
# from pip's default index at the versions of constraints.txt. Another index, with its password, is a
# pip.conf given as the build secret `pip`; nothing of it stays in the image.

# Python 3.11 or newer with its venv module, on glibc 2.28 or newer: a mirror's copy, or your own.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm

# ------------------------------------------------------------ torch alone, since it seldom changes
FROM ${BASE_IMAGE} AS torch
ARG TORCH=torch==2.13.0
# Where that torch comes from, e.g. an index of CPU builds; empty: from where everything comes.
ARG TORCH_INDEX=
ENV PIP_CONSTRAINT=/build/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# pip lives in an environment of its own and stays behind.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/turnpoint
COPY constraints.txt deploy/image/finish.sh ./
# First without its dependencies: they come from where everything comes, at our versions.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -e; pip="/opt/pip/bin/pip --python /opt/turnpoint/bin/python"; \
    $pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"; \
    $pip install "$TORCH"; \
    sh finish.sh /opt/turnpoint

# ------------------------------------------------------------ our own packages: a tree laid over it
FROM torch AS ours
RUN --mount=type=secret,id=pip,target=/etc/pip.conf /opt/pip/bin/pip install hatchling
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY core core
COPY service service
COPY trainer trainer
COPY cli cli
RUN set -e; /opt/pip/bin/pip wheel --no-deps --no-index --no-build-isolation -w wheels . ./client; \
    /opt/pip/bin/pip --python /opt/turnpoint/bin/python install --no-deps --no-index \
        --prefix /opt/ours wheels/*.whl; \
    sh finish.sh /opt/ours

# ------------------------------------------------------------ what each target needs beside torch
FROM torch AS needs
COPY pyproject.toml deploy/image/needs.py ./
COPY client/pyproject.toml client/
# More packages for both, e.g. `s3fs` for a registry at s3://.
ARG EXTRA_PACKAGES=

FROM needs AS service-needs
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -e; python3 needs.py service > needs.txt; \
    /opt/pip/bin/pip --python /opt/turnpoint/bin/python install --prefix /opt/needs \
        -r needs.txt $EXTRA_PACKAGES; \
    sh finish.sh /opt/needs

FROM needs AS trainer-needs
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -e; python3 needs.py trainer > needs.txt; \
    /opt/pip/bin/pip --python /opt/turnpoint/bin/python install --prefix /opt/needs \
        -r needs.txt $EXTRA_PACKAGES; \
    sh finish.sh /opt/needs

# ------------------------------------------------------------ what both images are
FROM ${BASE_IMAGE} AS runtime
# A number, so that Kubernetes can see that it is not root. Volumes mounted here get its ownership.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin turnpoint && \
    install -d -o 10001 -g 10001 /registry /state
COPY --from=torch /opt/turnpoint /opt/turnpoint
# The last two are read by NVIDIA's container runtime; without it they do nothing.
ENV PATH=/opt/turnpoint/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["turnpoint"]
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.base.name=$BASE_IMAGE

# ------------------------------------------------------------ the two images
FROM runtime AS trainer
COPY --from=trainer-needs /opt/needs /opt/turnpoint
COPY --from=ours /opt/ours /opt/turnpoint
LABEL org.opencontainers.image.title=turnpoint-trainer \
      org.opencontainers.image.description="Trains an encoder with its diffusion model and publishes it"
CMD ["train", "--help"]

FROM runtime AS service
COPY --from=service-needs /opt/needs /opt/turnpoint
COPY --from=ours /opt/ours /opt/turnpoint
COPY deploy/image/healthcheck.py /opt/turnpoint/
LABEL org.opencontainers.image.title=turnpoint-service \
      org.opencontainers.image.description="Online negative sampling for recommenders"
ENV TURNPOINT_SERVER__HOST=0.0.0.0 TURNPOINT_REGISTRY__ADDRESS=/registry TURNPOINT_LOG__FORMAT=json
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-I", "/opt/turnpoint/healthcheck.py"]
CMD ["serve"]
