# Read by the job files of this folder: the stages as functions, each with the settings of its command as arguments.
# docs/clusters.md explains the variables CHEXSCALE_*.

set -uo pipefail

cd "${CHEXSCALE_HOME:-$SLURM_SUBMIT_DIR}"
environment="${CHEXSCALE_VENV:-$PWD/.venv}"
if [ ! -x "$environment/bin/torchrun" ]; then
    echo "error: $environment/bin/torchrun is not on $(hostname): run \`make setup\` in $PWD, which all nodes must see," \
        "or name another environment: export CHEXSCALE_VENV=DIR" >&2
    exit 2
fi
export PATH="$environment/bin:$PATH" PYSPARK_PYTHON="$environment/bin/python" PYTHONUNBUFFERED=1
# Since Slurm 22.05 srun does not take this from sbatch.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
# A rank binds itself to cores of its own. Slurm must not bind all ranks of a node to one core before.
export SLURM_CPU_BIND=none
wait_s="${CHEXSCALE_WAIT_S:-300}"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Two jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 10000))
cut=""

# Slurm sends USR1 before the time limit (`--signal`). The ranks save their state on SIGTERM. They are signalled by
# scancel, because srun takes a SIGTERM of its own as an order to kill them.
on_time_limit() {
    cut=yes
    # The step may not have begun yet.
    for _ in $(seq 20); do
        squeue --noheader --steps --jobs "$SLURM_JOB_ID" | grep -qv batch && break
        sleep 1
    done
    scancel --signal=TERM "$SLURM_JOB_ID"
}
trap on_time_limit USR1

# again: puts the job back into the queue.
again() {
    local restarts="${SLURM_RESTART_COUNT:-0}" most="${CHEXSCALE_RESTARTS:-50}"
    if [ "$restarts" -ge "$most" ]; then
        echo "error: The time limit is near, and this job was started again $restarts times, expected fewer than $most:" \
            "give it more --time or other nodes, or export CHEXSCALE_RESTARTS=N, and submit the same command again" >&2
        exit 1
    fi
    echo "The time limit is near: the job goes back to the queue, and goes on from there"
    scontrol requeue "$SLURM_JOB_ID" && sleep 120
    echo "error: Slurm does not put the job back into the queue: submit the same command again, which goes on" >&2
    exit 1
}

# run STAGE COMMAND...: ends the job with the stage's exit code if it fails.
run() {
    local stage=$1 code=0 process
    shift
    [ -z "$cut" ] || again
    echo "$stage on ${nodes[*]}: $*"
    "$@" &
    process=$!
    # A trapped signal ends `wait` early.
    while kill -0 "$process" 2>/dev/null; do
        wait "$process"
        code=$?
    done
    if [ "$code" -ne 0 ]; then
        [ -z "$cut" ] || again
        echo "error: $stage failed on ${nodes[*]} with exit code $code; its message is above. Once the cause is gone," \
            "submit the same command again: it goes on from the last saved state" >&2
        exit "$code"
    fi
}

etl() {
    if [ "${#nodes[@]}" -eq 1 ]; then
        run ETL srun --nodes=1 --ntasks=1 --kill-on-bad-exit=1 \
            spark-submit --master "local[$SLURM_CPUS_ON_NODE]" etl/preprocess.py "$@"
        return
    fi
    local master="spark://${nodes[0]}:$port" logs found=0 spent
    logs="$(mktemp -d)"
    # Without the environment's own settings, which silence it, the master logs its workers.
    mkdir "$logs/settings"
    SPARK_CONF_DIR="$logs/settings" srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
        spark-class org.apache.spark.deploy.master.Master --host "${nodes[0]}" --port "$port" --webui-port 0 \
        >"$logs/master" 2>&1 &
    SPARK_CONF_DIR="$logs/settings" srun --overlap --nodes="${#nodes[@]}" --ntasks-per-node=1 bash -c \
        'exec spark-class org.apache.spark.deploy.worker.Worker --host "$SLURMD_NODENAME" --webui-port 0 \
        --cores "$SLURM_CPUS_ON_NODE" --memory "${CHEXSCALE_WORKER_MEMORY:-1g}" --work-dir "$1" "$0"' \
        "$master" "${SLURM_TMPDIR:-/tmp}/chexscale-spark-$SLURM_JOB_ID" >"$logs/workers" 2>&1 &
    for spent in $(seq 0 "$wait_s"); do
        found="$(grep -c 'Registering worker' "$logs/master")"
        [ "$found" -lt "${#nodes[@]}" ] || break
        sleep 1
    done
    if [ "$found" -lt "${#nodes[@]}" ]; then
        echo "error: $found of ${#nodes[@]} Spark workers came to $master within $spent s; see $logs on ${nodes[0]}." \
            "Next: look at the nodes with sinfo; a longer wait: export CHEXSCALE_WAIT_S=SECONDS" >&2
        scancel --signal=KILL "$SLURM_JOB_ID"
        exit 1
    fi
    run ETL srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --kill-on-bad-exit=1 \
        spark-submit --master "$master" --conf "spark.driver.host=${nodes[0]}" etl/preprocess.py "$@"
    # Ends the master and the workers.
    scancel --signal=TERM "$SLURM_JOB_ID"
    wait
    rm -r "$logs"
}

training() {
    local ranks="${CHEXSCALE_RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}"
    case "${CHEXSCALE_LAUNCHER:-torchrun}" in
    torchrun)
        run training srun --nodes="${#nodes[@]}" --ntasks-per-node=1 --kill-on-bad-exit=1 \
            torchrun --nnodes "${#nodes[@]}" --nproc_per_node "$ranks" --rdzv_backend c10d \
            --rdzv_id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv_endpoint "${nodes[0]}:$port" \
            --rdzv_conf "join_timeout=$wait_s" training/train.py --resume auto "$@"
        ;;
    horovodrun)
        # horovodrun calls ssh; here srun takes its place.
        export PATH="$PWD/jobs/slurm/horovod:$PATH"
        run training srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --kill-on-bad-exit=1 \
            horovodrun --gloo --start-timeout "$wait_s" -np $((ranks * ${#nodes[@]})) \
            -H "$(printf "%s:$ranks\n" "${nodes[@]}" | paste -sd,)" python training/train.py --resume auto "$@"
        ;;
    *)
        echo "error: CHEXSCALE_LAUNCHER is $CHEXSCALE_LAUNCHER, expected torchrun or horovodrun" >&2
        exit 2
        ;;
    esac
}

register() {
    run register srun --nodes=1 --ntasks=1 --kill-on-bad-exit=1 python inference/register.py "$@"
}
