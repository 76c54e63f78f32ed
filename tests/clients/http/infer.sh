#!/usr/bin/env bash
# Stories of a plain HTTP client: the Open Inference Protocol V2 by curl, against a running gateway.
# Reads OPENAI_BASE_URL (which ends in /v1), OPENAI_API_KEY and RIALTO_PREDICT_MODEL. The last line counts the stories.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

root=${OPENAI_BASE_URL%/}
root=${root%/v1}
folder=models/breast-cancer
tag=$(sed -n 's/^tag = "\(.*\)"/\1/p' "$folder/manifest.toml")
model=${RIALTO_PREDICT_MODEL:-rialto/breast-cancer:$tag}
# A model's name holds a slash; in a path it is one part.
path=${model//\//%2F}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# ask STATUS METHOD PATH [FILE]: one request; the body lands in $work/body. False when the status is another.
ask() {
  local expected=$1 method=$2 address=$root$3 status
  local body=()
  [ $# -lt 4 ] || body=(-H 'content-type: application/json' --data-binary "@$4")
  status=$(curl -sS --max-time 180 -o "$work/body" -w '%{http_code}' -X "$method" \
    -H "authorization: Bearer ${key:-$OPENAI_API_KEY}" "${body[@]}" "$address") || return 1
  [ "$status" = "$expected" ] || { echo "$method $address: $status, not $expected: $(head -c 300 "$work/body")" && return 1; }
}

# holds FILTER [FILE]: a jq filter that must be true of the last body.
holds() {
  jq -e "$1" "${2:-$work/body}" >/dev/null || { echo "not true: $1: $(head -c 600 "$work/body")" && return 1; }
}

# An error of this protocol is one text under `error`.
is_error() { holds '(.error | type == "string" and length > 0) or (.error.message | type == "string" and length > 0)'; }

the_server_is_live_and_ready() { ask 200 GET /v2/health/live && ask 200 GET /v2/health/ready && ask 200 GET /healthz; }

the_model_says_what_it_takes() {
  ask 200 GET "/v2/models/$path" &&
    holds "(.name | length > 0) and (.platform | type == \"string\")" &&
    holds '.inputs == [{name: "input", datatype: "FP32", shape: [-1, 30]}]' &&
    holds '[.outputs[] | {name, datatype}] == [{name: "label", datatype: "INT64"}, {name: "probabilities", datatype: "FP32"}]'
}

the_model_is_ready() { ask 200 GET "/v2/models/$path/ready"; }

the_example_gives_its_outputs() {
  jq '.request + {id: "story-1"}' "$folder/example.json" >"$work/request"
  ask 200 POST "/v2/models/$path/infer" "$work/request" || return 1
  jq -n --slurpfile told "$folder/example.json" --slurpfile got "$work/body" \
    '{told: ($told[0].expected_outputs | sort_by(.name)), got: ($got[0].outputs | sort_by(.name)), id: $got[0].id}' >"$work/both"
  holds '.id == "story-1"' "$work/both" &&
    holds '[.told[] | {name, datatype, shape}] == [.got[] | {name, datatype, shape}]' "$work/both" &&
    holds '[.told[].data | length] == [.got[].data | length]' "$work/both" &&
    holds '[.told[].data[]] as $told | [.got[].data[]] as $got | ($told | length) > 0 and
      all(range($told | length); ($told[.] - $got[.]) | fabs < 0.00001)' "$work/both"
}

one_output_may_be_asked_for() {
  jq '.request + {outputs: [{name: "label"}]}' "$folder/example.json" >"$work/request"
  ask 200 POST "/v2/models/$path/infer" "$work/request" && holds '[.outputs[].name] == ["label"]'
}

a_wrong_shape_is_refused() {
  jq '.request | .inputs[0].shape = [4, 29]' "$folder/example.json" >"$work/request"
  ask 400 POST "/v2/models/$path/infer" "$work/request" && is_error
}

a_wrong_type_is_refused() {
  jq '.request | .inputs[0].datatype = "INT8"' "$folder/example.json" >"$work/request"
  ask 400 POST "/v2/models/$path/infer" "$work/request" && is_error
}

what_is_no_json_is_refused() {
  echo '{"inputs": [' >"$work/request"
  ask 400 POST "/v2/models/$path/infer" "$work/request" && is_error
}

an_unknown_model_is_not_found() {
  jq .request "$folder/example.json" >"$work/request"
  ask 404 POST /v2/models/rialto%2Fnothing:v0/infer "$work/request" && is_error
}

a_bad_key_is_refused() {
  jq .request "$folder/example.json" >"$work/request"
  key=sk-rialto-of-nobody ask 401 POST "/v2/models/$path/infer" "$work/request" && is_error
}

the_metrics_are_there() {
  ask 200 GET /metrics && { grep -q '^# TYPE rialto_' "$work/body" || { echo "no metric of rialto" && return 1; }; }
}

for story in the_server_is_live_and_ready the_model_says_what_it_takes the_model_is_ready the_example_gives_its_outputs \
  one_output_may_be_asked_for a_wrong_shape_is_refused a_wrong_type_is_refused what_is_no_json_is_refused \
  an_unknown_model_is_not_found a_bad_key_is_refused the_metrics_are_there; do
  if "$story" >"$work/said" 2>&1; then
    passed=$((passed + 1))
    echo "ok      http: $story"
  else
    failed=$((failed + 1))
    echo "FAILED  http: $story"
    cat "$work/said"
  fi
done
echo "http: $passed passed, $failed failed"
[ "$failed" = 0 ]
