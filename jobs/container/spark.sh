#!/usr/bin/env bash
# The entry of the image with Spark. On Kubernetes, Spark calls it with `driver` or `executor` and with variables, as it
# calls the entrypoint.sh of its own image (Spark 4.0). Anything else is run as it stands.
set -euo pipefail

case "${1:-}" in
driver)
    shift
    exec spark-submit --deploy-mode client \
        --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
        --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" "$@"
    ;;
executor)
    classpath=("${SPARK_CONF_DIR:-}" "${SPARK_CLASSPATH:-}" "$SPARK_HOME/conf" "$SPARK_HOME/jars/*" "${SPARK_EXTRA_CLASSPATH:-}")
    options=()
    # SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1, ...
    for name in $(compgen -v SPARK_JAVA_OPT_ | sort -t_ -k4 -n); do
        options+=("${!name}")
    done
    exec java "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
        -cp "$(printf '%s\n' "${classpath[@]}" | grep . | paste -sd:)" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" \
        --executor-id "$SPARK_EXECUTOR_ID" \
        --cores "$SPARK_EXECUTOR_CORES" \
        --app-id "$SPARK_APPLICATION_ID" \
        --hostname "$SPARK_EXECUTOR_POD_IP" \
        --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
        --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
*)
    exec "$@"
    ;;
esac
