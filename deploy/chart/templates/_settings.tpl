{{/* The settings that follow from values. api.settings and bastion.settings may add others; the schema keeps them apart. */}}
{{- define "bastion.apiSettings" -}}
SSH_API_PUBLIC_URL: {{ .Values.publicUrl | quote }}
SSH_API_SERVICE_NAME: {{ .Values.hub.serviceName | quote }}
SSH_API_ZONE: {{ .Values.zone | quote }}
SSH_API_STATE_DIRECTORY: /var/lib/jupyterhub-bastion/state
SSH_API_HUB_URL: {{ .Values.hub.url | quote }}
SSH_API_HUB_API_URL: {{ .Values.hub.apiUrl | quote }}
SSH_API_HUB_TOKEN_FILE: /etc/jupyterhub-bastion/hub/token
SSH_API_LISTEN_HOST: {{ .Values.listenHost | quote }}
SSH_API_LISTEN_PORT: "9080"
SSH_API_LISTEN_POD_PORT: "9082"
SSH_API_LISTEN_TRUSTED_PROXIES: {{ join "," .Values.api.trustedProxies | quote }}
SSH_API_INTERNAL_HOST: {{ .Values.listenHost | quote }}
SSH_API_INTERNAL_PORT: "9081"
SSH_API_INTERNAL_SECRET_FILE: /etc/jupyterhub-bastion/internal/secret
SSH_API_BASTION_HOSTS: {{ join "," .Values.bastion.hosts | quote }}
SSH_API_BASTION_PORT: {{ int .Values.bastion.port | quote }}
SSH_API_BASTION_JUMP_LOGIN: {{ first .Values.bastion.jumpLogins | quote }}
SSH_API_PODS_NETWORKS: {{ join "," .Values.notebooks.networks | quote }}
SSH_API_PODS_UNIX_USER: {{ .Values.notebooks.unixUser | quote }}
SSH_API_SERVERS_START: {{ .Values.api.startServers | quote }}
SSH_API_CERTIFICATES_KEYS_GROUP: {{ int .Values.podSecurity.group | quote }}
{{- end -}}

{{- define "bastion.bastionSettings" -}}
BASTION_STATE_DIRECTORY: /var/lib/jupyterhub-bastion/state
BASTION_SHUTDOWN_GRACE: {{ int .Values.bastion.shutdownGraceSeconds | quote }}
BASTION_LISTEN_HOST: {{ .Values.listenHost | quote }}
BASTION_LISTEN_PORT: "2222"
BASTION_API_URL: {{ include "bastion.internalUrl" . | quote }}
BASTION_API_SECRET_FILE: /var/lib/jupyterhub-bastion/state/secret
BASTION_API_ALLOW_HTTP: "true"
BASTION_LOGIN_JUMP_NAMES: {{ join "," .Values.bastion.jumpLogins | quote }}
BASTION_PODS_NETWORKS: {{ join "," .Values.notebooks.networks | quote }}
BASTION_DIRECTORY_SOURCE: {{ .Values.bastion.directory }}
{{- if eq .Values.bastion.directory "kubernetes" }}
BASTION_DIRECTORY_NAMESPACES: {{ join "," (include "bastion.namespaces" . | fromJson).in | quote }}
BASTION_DIRECTORY_SELECTOR: {{ include "bastion.selectorText" . | quote }}
BASTION_DIRECTORY_SSH_PORT: {{ int .Values.notebooks.sshPort | quote }}
BASTION_DIRECTORY_KEY_PORT: {{ int .Values.notebooks.keyPort | quote }}
BASTION_DIRECTORY_UNIX_USER: {{ .Values.notebooks.unixUser | quote }}
{{- if .Values.kubeApiHost }}
BASTION_DIRECTORY_KUBE_API_HOST: {{ .Values.kubeApiHost | quote }}
BASTION_DIRECTORY_KUBE_API_PORT: {{ int .Values.kubeApiPort | quote }}
{{- end }}
{{- end }}
{{- if .Values.bastion.metrics.enabled }}
BASTION_METRICS_HOST: {{ .Values.listenHost | quote }}
BASTION_METRICS_PORT: {{ int .Values.bastion.metrics.port | quote }}
{{- end }}
{{- end -}}
