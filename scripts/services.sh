#!/usr/bin/env bash
# Install the Debian packages whose programs the tests run for real. With root, or through sudo.
set -euo pipefail

# program:package
needed=(curl:curl git:git shellcheck:shellcheck jq:jq openssl:openssl redis-server:redis-server)
# Ceph's S3 gateway, which the tests start for themselves. Where there is no Debian they are skipped.
if command -v apt-get >/dev/null 2>&1; then
  needed+=(chronyd:chrony nginx:nginx-light)
  needed+=(ceph:ceph-common ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw)
fi

missing=()
PATH="$PATH:${SBIN-/usr/sbin:/sbin}" # where daemons are, and where Debian's users do not look
for entry in "${needed[@]}"; do
  command -v "${entry%%:*}" >/dev/null 2>&1 || missing+=("${entry##*:}")
done
if [ "${#missing[@]}" -eq 0 ]; then
  echo "services: everything is installed"
  exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
  if [ "$(uname -s)" = Darwin ]; then
    echo "services: missing ${missing[*]} → brew install ${missing[*]}" >&2
  else
    echo "services: missing ${missing[*]}, and there is no apt-get → install them with your package manager" >&2
  fi
  exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "services: missing ${missing[*]} → as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "services: installing ${missing[*]}"
apt() { ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null; }
apt update
apt install --yes --no-install-recommends "${missing[@]}"
# The tests start an nginx of their own; the packaged one would keep port 80.
case " ${missing[*]} " in *" nginx-light "*)
  as_root_do() { ${as_root[@]+"${as_root[@]}"} env PATH="$PATH" "$@"; }
  as_root_do update-rc.d nginx disable || echo "services: nginx may start by itself at the next boot" >&2
  as_root_do invoke-rc.d nginx stop || true # it was not started
  ;;
esac
