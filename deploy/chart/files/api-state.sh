# The state is a folder inside the volume, since the volume's own mode and group belong to the cluster.
umask 077
mkdir -p "$STATE"
# Kubernetes opens what is in a volume to the pod's group, and the api takes no keys that others can read.
chmod -R u=rwX,go= "$STATE"
rm -f "$STATE/cookie-key"
cp "$SECRETS/cookie/cookie-key" "$STATE/cookie-key"
chmod 600 "$STATE/cookie-key"
if [ "$KEYS" = secret ]; then
    if [ -d "$STATE/keys" ] && [ ! -L "$STATE/keys" ]; then
        echo "The CA keys are in the state volume ($STATE/keys), and api.keys.storage says secret: move them first." >&2
        exit 1
    fi
    ln -sfn "$SECRETS/keys" "$STATE/keys"
elif [ -L "$STATE/keys" ]; then
    echo "The CA keys were in a Secret so far, and api.keys.storage says state: set it to secret." >&2
    exit 1
fi
