# Sourced: a bare Debian in a folder, for root. Needs say.sh, and the current directory at the top.

# Says why there can be none.
bare_root_possible() {
  if [ "$(id -u)" != 0 ]; then
    say "a bare Debian needs root"
  elif ! command -v debootstrap >/dev/null; then
    say "debootstrap is missing: apt-get install debootstrap"
  elif ! unshare --mount --pid --net --ipc --fork true 2>/dev/null; then
    say "this machine gives no namespaces"
  else
    return 0
  fi
  return 1
}

# bare_root FOLDER FILE.deb: this machine's release with what is essential, apt, and what the package depends on, so that it
# can be installed without a network. Where packages come from is what this machine's apt says.
bare_root() {
  local root=$1 suite mirror depends cache
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$suite main //p" | head -n 1)
  [ -n "$mirror" ] || die "apt does not say where $suite comes from: check the sources in /etc/apt"
  depends=$(dpkg-deb --field "$2" Depends | sed 's/([^)]*)//g; s/ //g')
  cache=target/test/bare-$suite-$(printf %s "$depends" | md5sum | cut -c 1-8).tar
  if [ ! -f "$cache" ]; then
    say "fetching a bare $suite from $mirror"
    debootstrap --variant=minbase --include="$depends" "$suite" "$cache.root" "$mirror" >"$cache.log" 2>&1 || {
      tail -n 5 "$cache.log" >&2
      rm -rf "$cache.root"
      die "debootstrap failed; the whole of what it said is in $cache.log"
    }
    rm -rf "$cache.root"/var/cache/apt/archives/*.deb "$cache.log"
    tar -C "$cache.root" -cf "$cache.new" .
    rm -rf "$cache.root"
    # Renamed last, so that a fetch cut short leaves nothing that looks whole.
    mv "$cache.new" "$cache"
  fi
  mkdir -p "$root"
  tar -C "$root" -xf "$cache"
}

# mount_kernel: /proc, /sys and a few devices in `root`. For a mount namespace of its own, with which they go.
mount_kernel() {
  local device
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  mkdir -m 1777 "$root/dev/shm"
}

in_root() { chroot "$root" "$@"; }
