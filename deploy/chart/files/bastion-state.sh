umask 077
mkdir -p "$STATE"
chmod -R u=rwX,go= "$STATE"
for file in internal/secret host-key/ssh_host_ed25519_key; do
    rm -f "$STATE/${file##*/}"
    cp "$SECRETS/$file" "$STATE/${file##*/}"
    chmod 600 "$STATE/${file##*/}"
done
