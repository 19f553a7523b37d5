# Makes the environments of the drivers and runs them. Sourced by capture.sh and live.sh, never run.
# shellcheck shell=bash

otel_families=(
    openinference-openai openinference-anthropic openinference-langchain openinference-agents
    otel-openai otel-openai-event-only openllmetry-openai openllmetry-anthropic
    pydantic-ai langfuse vercel vercel-legacy
    openinference-langgraph otel-botocore logfire-openai openlit-openai
)

# The environment a family runs in: two families may share one.
otel_environment() {
    case $1 in
        otel-openai-event-only) echo otel-openai ;;
        vercel-legacy) echo vercel ;;
        *) echo "$1" ;;
    esac
}

# Installs what the family's driver needs, unless it is there. Run in the repository's root.
otel_install() {
    local environment
    environment=$(otel_environment "$1")
    if [[ $environment != vercel ]]; then
        scripts/venv.sh ".tools/otel/$environment" -r "tests/otel/drivers/requirements-$environment.txt"
        return
    fi
    local source=tests/otel/drivers/vercel target=.tools/otel/vercel
    mkdir -p "$target"
    cp "$source"/*.mjs "$target/"
    if cmp -s "$source/package-lock.json" "$target/installed.json"; then return; fi
    rm -rf "$target/node_modules"
    cp "$source/package.json" "$source/package-lock.json" "$target/"
    (cd "$target" && npm ci --silent --no-audit --no-fund)
    # Written last, so that an interrupted installation is not taken for a finished one.
    cp "$source/package-lock.json" "$target/installed.json"
}

# Runs a family's driver; where it tells its story comes from the environment.
otel_drive() {
    local family=$1 environment
    environment=$(otel_environment "$family")
    if [[ $environment == vercel ]]; then
        # From its own folder and by relative names, so that no path of the machine is in sight.
        (cd .tools/otel/vercel && exec node "$family.mjs")
        return
    fi
    local content=SPAN_AND_EVENT
    if [[ $family == otel-openai-event-only ]]; then content=EVENT_ONLY; fi
    local python=$PWD/.tools/otel/$environment/bin/python
    (cd tests/otel && CAPTURE_CONTENT=$content PYTHONDONTWRITEBYTECODE=1 exec "$python" "drivers/$environment.py")
}

# The libraries of a family's environment with their versions, as NAME=VERSION.
otel_libraries() {
    local environment
    environment=$(otel_environment "$1")
    if [[ $environment == vercel ]]; then
        echo "node=$(node --version)"
        node -e 'for (const [name, version] of Object.entries(require("./tests/otel/drivers/vercel/package.json").dependencies)) console.log(`${name}=${version}`)'
        return
    fi
    echo "python=$(".tools/otel/$environment/bin/python" -c 'import platform; print(platform.python_version())')"
    grep -iE '^(openai|anthropic|boto3|botocore|langchain|langgraph|langfuse|logfire|openlit|pydantic-ai|traceloop|genai-prices|openinference|opentelemetry-(api|sdk|exporter-otlp-proto-http|util-genai|semantic-conventions-ai|instrumentation-(genai-openai|openai|anthropic|botocore)))[^ ]*==' \
        "tests/otel/drivers/requirements-$environment.txt" | sed 's/==/=/'
}

# Waits until something answers on a port of this machine, a minute at most.
otel_await() {
    local port=$1
    for _ in $(seq 1200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 0; fi
        sleep 0.05
    done
    echo "nothing answers on port $port" >&2
    return 1
}
