#!/bin/sh
# Installs the distribution's Chromium where that needs no question: as root, or with a sudo that wants no password.
# Where it cannot, the tests of the pages are skipped, and this says so; it never fails.
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit 0
done

skip() {
  echo "No Chromium, and $1: the tests of the pages in a browser will be skipped."
  exit 0
}

command -v apt-get >/dev/null || skip "no apt-get to install it with"
if [ "$(id -u)" = 0 ]; then
  as_root="env"
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root="sudo -n env"
else
  skip "installing it needs a password"
fi
install="$as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
echo "Installing Chromium for the tests of the pages ..."
$install update >/dev/null 2>&1
$install install -y --no-install-recommends chromium fonts-dejavu-core </dev/null >/dev/null 2>&1 || skip "apt-get could not install it"
