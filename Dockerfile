# Three images: server (the default), trainer and ui. CPU, or CUDA with --build-arg KIND=cuda. Checked, not built here.
#
#   docker build -t mailwright .
#   docker build -t mailwright-trainer --target trainer .
#   docker build -t mailwright-ui --target ui .
#   docker run -p 127.0.0.1:8000:8000 -e MAILWRIGHT_API_KEY=choose-one -v mailwright:/data mailwright
#
# deploy/compose.yaml starts server and page together, with Prometheus and Grafana. The server listens on all addresses
# of its container, which it does only with MAILWRIGHT_API_KEY set; the page listens there when it is told to.
#
# The base image is pinned by its tag, not by a digest: no registry could be asked for one where this was written.
FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY adapters adapters
COPY trainer trainer
COPY server server
COPY ui ui
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .


FROM python:3.11-slim-bookworm AS base
LABEL org.opencontainers.image.title="Mailwright" org.opencontainers.image.licenses="Apache-2.0"
# One user, without a password or rights. Whatever a library keeps in its home lies in the cache; a new volume takes over
# the owner of the folder that it is put on.
RUN useradd --uid 10001 --no-create-home --home-dir /data/cache --shell /usr/sbin/nologin mailwright \
    && install -d -o 10001 -g 10001 /data /data/store /data/cache /data/kept
ENV MAILWRIGHT_STORE=/data/store MAILWRIGHT_CACHE=/data/cache MAILWRIGHT_KEPT=/data/kept PYTHONUNBUFFERED=1
WORKDIR /data


FROM base AS ui
COPY deploy/requirements-ui.txt /tmp/pins.txt
RUN pip install --no-cache-dir --no-deps -r /tmp/pins.txt
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-cache-dir --no-deps /tmp/wheel/*.whl
USER 10001
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/')"]
# Outside it is reached with --host 0.0.0.0 --allow-everyone: publish it on 127.0.0.1 only, it holds the API key.
ENTRYPOINT ["ui"]


FROM base AS service
ARG KIND=cpu
# vLLM needs libnuma on a CPU, where the server compiles with g++, and compiles kernels with gcc on a GPU. Debian keeps
# one version of a package only, so a pinned one could not be installed any more after the next update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libnuma1 \
    && if [ "$KIND" = cuda ]; then apt-get install -y --no-install-recommends gcc libc6-dev; \
       else apt-get install -y --no-install-recommends g++; fi \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/requirements-${KIND}.txt /tmp/pins.txt
# PyPI has no CPU build of torch; the CUDA pins take torch from PyPI.
RUN if [ "$KIND" = cpu ]; then \
      grep '^torch==' /tmp/pins.txt > /tmp/torch.txt && sed -i '/^torch==/d' /tmp/pins.txt \
      && pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu -r /tmp/torch.txt; \
    fi \
    && pip install --no-cache-dir --no-deps -r /tmp/pins.txt
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-cache-dir --no-deps /tmp/wheel/*.whl
USER 10001


FROM service AS trainer
HEALTHCHECK NONE
ENTRYPOINT ["trainer"]


FROM service AS server
EXPOSE 8000
HEALTHCHECK --start-period=300s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["server", "--host", "0.0.0.0"]
