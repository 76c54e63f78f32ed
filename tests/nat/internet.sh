# Sourced: an internet of network namespaces, and homes behind NATs. Needs say.sh.
#
#   internet         10.99.0.1; its default route leads to a namespace that answers nothing, and what is sent there counts
#   home NAME N      a machine at 192.168.N.2 behind a router at 10.99.N.2
#   guest NAME N OF  another machine, at 192.168.(100+N).2, behind the router of the home OF
#   public NAME N    a machine at 10.99.N.2, with no NAT

prefix=rialto-nat-$$
namespaces=()

not_here() { echo "NOT TESTED: $*" >&2; exit 3; }

internet_possible() {
  local tried=0 tool
  [ "$(id -u)" = 0 ] || not_here "network namespaces need root"
  for tool in ip nft jq curl; do
    command -v "$tool" >/dev/null || not_here "\`$tool\` is not installed"
  done
  ip netns add "$prefix-try" 2>/dev/null || not_here "this system gives no network namespaces"
  ip netns exec "$prefix-try" nft 'add table ip t; add chain ip t c { type nat hook postrouting priority 100; }' 2>/dev/null ||
    tried=$?
  ip netns delete "$prefix-try"
  [ $tried = 0 ] || not_here "this system's kernel has no NAT"
}

internet_end() {
  local name
  for name in "${namespaces[@]}"; do ip netns delete "$prefix-$name" 2>/dev/null || true; done
}

in_ns() { local name=$1; shift; ip netns exec "$prefix-$name" "$@"; }

ns_add() {
  ip netns add "$prefix-$1"
  namespaces+=("$1")
  in_ns "$1" sysctl -qw net.ipv6.conf.all.disable_ipv6=1
  in_ns "$1" ip link set lo up
}

# cable NS DEVICE ADDRESS NS DEVICE ADDRESS
cable() {
  ip link add "$2" netns "$prefix-$1" type veth peer name "$5" netns "$prefix-$4"
  in_ns "$1" ip address add "$3" dev "$2"
  in_ns "$1" ip link set "$2" up
  in_ns "$4" ip address add "$6" dev "$5"
  in_ns "$4" ip link set "$5" up
}

# Private addresses are what nodes tell each other of themselves; they are a part of this, and lead nowhere.
internet() {
  ns_add internet
  ns_add nowhere
  cable internet outside 10.99.250.1/30 nowhere inside 10.99.250.2/30
  in_ns internet ip route add default via 10.99.250.2
  in_ns internet ip address add 10.99.0.1/32 dev lo
  in_ns internet sysctl -qw net.ipv4.ip_forward=1
  in_ns internet nft -f - <<'NFT'
table inet watch {
  counter outside { }
  set ours { type ipv4_addr; flags interval; elements = { 10.99.0.0/16, 127.0.0.0/8, 192.168.0.0/16 } }
  chain came { type filter hook prerouting priority -300; ip daddr != @ours counter name outside drop; }
  chain sent { type filter hook output priority -300; ip daddr != @ours counter name outside drop; }
}
NFT
}

# Packets that were sent to an address that is no part of this.
outside() { in_ns internet nft -j list counter inet watch outside | jq '.nftables[] | .counter? // empty | .packets'; }

home() {
  local name=$1 number=$2 how=''
  ns_add "$name"
  ns_add "$name-router"
  cable internet "home$number" "10.99.$number.1/24" "$name-router" wan "10.99.$number.2/24"
  cable "$name-router" lan "192.168.$number.1/24" "$name" eth "192.168.$number.2/24"
  in_ns "$name" ip route add default via "192.168.$number.1"
  in_ns "$name-router" ip route add default via "10.99.$number.1"
  in_ns "$name-router" sysctl -qw net.ipv4.ip_forward=1
  [[ $name != *-hard ]] || how=fully-random
  in_ns "$name-router" nft -f - <<NFT
table ip nat {
  chain out { type nat hook postrouting priority 100; oifname wan masquerade $how; }
  chain through { type filter hook forward priority 0; policy drop; iifname != wan accept; ct state established,related accept; }
  chain in { type filter hook input priority 0; policy drop; iifname != wan accept; ct state established,related accept; }
}
NFT
}

guest() {
  local name=$1 number=$((100 + $2)) router=$3-router
  ns_add "$name"
  cable "$router" guest "192.168.$number.1/24" "$name" eth "192.168.$number.2/24"
  in_ns "$name" ip route add default via "192.168.$number.1"
}

public() {
  local name=$1 number=$2
  ns_add "$name"
  cable internet "home$number" "10.99.$number.1/24" "$name" eth "10.99.$number.2/24"
  in_ns "$name" ip route add default via "10.99.$number.1"
}
