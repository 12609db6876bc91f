# The server in a container: CPU by default, CUDA with --build-arg KIND=cuda. Written and checked, not built here.
#
#   docker build -t mailwright .
#   docker run -p 127.0.0.1:8000:8000 -e MAILWRIGHT_API_KEY=choose-one -v mailwright:/data mailwright
#
# It listens on all addresses of the container, which `server` allows only with MAILWRIGHT_API_KEY set.
FROM python:3.11-slim-bookworm
ARG KIND=cpu

RUN apt-get update \
    && apt-get install -y --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 mailwright \
    && install -d -o mailwright /data

WORKDIR /app
COPY deploy/requirements-${KIND}.txt /tmp/pins.txt
# PyPI has no CPU build of torch; the CUDA pins take torch from PyPI.
RUN if [ "$KIND" = cpu ]; then \
      grep '^torch==' /tmp/pins.txt > /tmp/torch.txt && sed -i '/^torch==/d' /tmp/pins.txt \
      && pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu -r /tmp/torch.txt; \
    fi \
    && pip install --no-cache-dir --no-deps -r /tmp/pins.txt

COPY pyproject.toml README.md ./
COPY adapters adapters
COPY trainer trainer
COPY server server
RUN pip install --no-cache-dir --no-deps .

USER mailwright
ENV MAILWRIGHT_STORE=/data/store MAILWRIGHT_CACHE=/data/cache
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=300s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["server", "--host", "0.0.0.0"]
