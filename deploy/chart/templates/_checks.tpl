{{/* What the schema cannot say: which values go together. Each refusal is a sentence that says what to do. */}}
{{- define "bastion.checks" -}}
{{- $values := .Values -}}
{{- if not $values.image.repository -}}
{{- fail "image.repository is empty: build deploy/images/Dockerfile, push it to your registry, and set image.repository to its name." -}}
{{- end -}}
{{- if not $values.publicUrl -}}
{{- fail "publicUrl is empty: set it to the api's own address as browsers see it, like https://ssh.example.org. It must not be a path of the hub's address." -}}
{{- end -}}
{{- if not $values.hub.url -}}
{{- fail "hub.url is empty: set it to JupyterHub's address as browsers see it, like https://hub.example.org." -}}
{{- end -}}
{{- if not $values.bastion.hosts -}}
{{- fail "bastion.hosts is empty: set it to the host names that people type after `ssh`, like [ssh.example.org]." -}}
{{- end -}}
{{- if gt (int $values.api.replicas) 1 -}}
{{- if not $values.api.database.existingSecret -}}
{{- fail "api.replicas is more than 1, and SQLite is one file on one disk: put a PostgreSQL address (postgresql+asyncpg://...) into a Secret and name it in api.database.existingSecret, or set api.replicas to 1." -}}
{{- end -}}
{{- if ne $values.api.keys.storage "secret" -}}
{{- fail "api.replicas is more than 1, and every replica needs the same CA keys: set api.keys.storage to secret, or api.replicas to 1." -}}
{{- end -}}
{{- end -}}
{{- if not $values.secrets.create -}}
{{- range $what := list "internal" "cookie" "hostKey" -}}
{{- if not (get $values.secrets.existing $what) -}}
{{- fail (printf "secrets.create is false, so secrets.existing.%s must name a Secret that is there." $what) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.api.keys.storage "secret") (not $values.secrets.existing.ca) -}}
{{- fail "secrets.create is false and api.keys.storage is secret, so secrets.existing.ca must name a Secret that is there." -}}
{{- end -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled (not $values.kubeApiAddresses) (or $values.secrets.create (eq $values.bastion.directory "kubernetes")) -}}
{{- fail "kubeApiAddresses is empty, and the NetworkPolicy lets the bastion reach the Kubernetes API only there: set it to the addresses that `kubectl get endpointslices -n default -l kubernetes.io/service-name=kubernetes` shows, each as a network like 192.0.2.10/32, or set networkPolicy.enabled to false." -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $values.api.database.existingSecret (not $values.networkPolicy.databaseTo) -}}
{{- fail "networkPolicy.databaseTo is empty, and the NetworkPolicy would keep the api from PostgreSQL: set it to the peers and ports of your database, or set networkPolicy.enabled to false." -}}
{{- end -}}
{{- if and $values.api.ingress.enabled (not (hasPrefix "https://" $values.publicUrl)) -}}
{{- fail "publicUrl must begin with https:// when the api has an Ingress: its cookies are for https only." -}}
{{- end -}}
{{- range $part := list "api" "bastion" -}}
{{- $decided := include (printf "bastion.%sSettings" $part) $ | fromYaml | keys -}}
{{- range $variable := keys (get $values $part).settings -}}
{{- if has $variable (concat $decided (list "SSH_API_HUB_TOKEN" "SSH_API_DATABASE_URL" "BASTION_METRICS_HOST" "BASTION_METRICS_PORT" "BASTION_DIRECTORY_KUBECONFIG")) -}}
{{- fail (printf "%s.settings.%s: other values decide this setting; see the table of values in the chart's README.md." $part $variable) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.bastion.service.nodePort (eq $values.bastion.service.type "ClusterIP") -}}
{{- fail "bastion.service.nodePort needs bastion.service.type NodePort or LoadBalancer." -}}
{{- end -}}
{{- include "bastion.hostChecks" . -}}
{{- include "bastion.nameChecks" . -}}
{{- include "bastion.proxyChecks" . -}}
{{- end -}}

{{/* Host names with which the api would refuse to start. */}}
{{- define "bastion.hostChecks" -}}
{{- $values := .Values -}}
{{- $host := lower (urlParse $values.publicUrl).hostname -}}
{{- if and (eq $host (lower (urlParse $values.hub.url).hostname)) (ne $host "localhost") (ne $host "::1") (not (regexMatch "^127[.][0-9.]+$" $host)) -}}
{{- fail (printf "publicUrl and hub.url have the same host (%s), and browsers send a host's cookies to each of its ports, so notebook servers would be sent the api's sessions: give the api a host name of its own, like https://ssh.example.org." $host) -}}
{{- end -}}
{{- range $own := append $values.bastion.hosts $host -}}
{{- if hasSuffix (printf ".%s" $values.zone) (printf ".%s" (lower $own | trimSuffix ".")) -}}
{{- fail (printf "zone is %s, and %s lies in it, so a server's name could stand for that host: set zone to a domain that has none of bastion.hosts nor the host of publicUrl, like hub." $values.zone $own) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names, labels and ports that Kubernetes or another value would refuse only later. */}}
{{- define "bastion.nameChecks" -}}
{{- $values := .Values -}}
{{- $name := include "bastion.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- fail (printf "The objects' names would begin with %s, which no Service may: set fullnameOverride to small letters, digits and hyphens, with a letter first." $name) -}}
{{- end -}}
{{- range $part := list "api" "bastion" -}}
{{- $ours := merge (include "bastion.ownLabels" (list $ $part) | fromYaml) (include "bastion.meaningLabels" $part | fromYaml) | keys -}}
{{- range $where, $labels := dict "commonLabels" $values.commonLabels (printf "%s.podLabels" $part) (get $values $part).podLabels -}}
{{- range $label := keys ($labels | default dict) | sortAlpha -}}
{{- if has $label $ours -}}
{{- fail (printf "%s: %s is a label that the chart decides, since Services and policies select by such: take another." $where $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $values.networkPolicy.alsoBesideIn -}}
{{- if not (has . $values.notebooks.namespaces) -}}
{{- fail (printf "networkPolicy.alsoBesideIn: %s is none of notebooks.namespaces, so no notebook server of ours is there: take it away here, or add it there." .) -}}
{{- end -}}
{{- end -}}
{{- $host := (urlParse $values.publicUrl).hostname -}}
{{- if and $values.api.ingress.enabled (or (contains ":" $host) (regexMatch "^[0-9.]+$" $host)) -}}
{{- fail (printf "publicUrl is an address (%s), and an Ingress takes a host name only: give the api a name, or set api.ingress.enabled to false." $host) -}}
{{- end -}}
{{- if and $values.bastion.metrics.enabled (eq (int $values.bastion.metrics.port) 2222) -}}
{{- fail "bastion.metrics.port is 2222, where the bastion's ssh listens in its pod: take another." -}}
{{- end -}}
{{- end -}}
