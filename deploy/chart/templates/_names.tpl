{{- define "bastion.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of one part. Call with (list $ "api"). Never changes: selectors cannot be upgraded. */}}
{{- define "bastion.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "bastion.labels" -}}
{{- $root := index . 0 -}}
{{ include "bastion.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "bastion.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The name of one of the four Secrets. Call with (list $ "internal"). */}}
{{- define "bastion.secret" -}}
{{- $root := index . 0 -}}
{{- $what := index . 1 -}}
{{- get $root.Values.secrets.existing $what | default (printf "%s-%s" (include "bastion.fullname" $root) ($what | kebabcase)) -}}
{{- end -}}

{{- define "bastion.internalUrl" -}}
http://{{ include "bastion.fullname" . }}-api-internal.{{ .Release.Namespace }}.svc:9081
{{- end -}}

{{/* Where notebook pods reach the api. */}}
{{- define "bastion.podUrl" -}}
http://{{ include "bastion.fullname" . }}-api.{{ .Release.Namespace }}.svc{{ if ne (int .Values.api.service.port) 80 }}:{{ int .Values.api.service.port }}{{ end }}
{{- end -}}

{{/* The namespaces of notebook servers, as JSON: {"in": [...]}. */}}
{{- define "bastion.namespaces" -}}
{{- dict "in" (.Values.notebooks.namespaces | default (list .Release.Namespace)) | toJson -}}
{{- end -}}

{{/* Whether the api's state needs a disk: SQLite or CA keys are in it. */}}
{{- define "bastion.stateOnDisk" -}}
{{- if or (not .Values.api.database.existingSecret) (eq .Values.api.keys.storage "state") -}}true{{- end -}}
{{- end -}}

{{/* "true" when a namespace is a pattern: then pods are watched in all namespaces, and a Role is not enough. */}}
{{- define "bastion.clusterWide" -}}
{{- if contains "*" (join "," .Values.notebooks.namespaces) -}}true{{- end -}}
{{- end -}}

{{/* The labels of notebook servers with SSH as one selector text: a=b,c=d. */}}
{{- define "bastion.selectorText" -}}
{{- $pairs := list -}}
{{- range $label := keys .Values.notebooks.matchLabels | sortAlpha -}}
{{- $pairs = append $pairs (printf "%s=%s" $label (get $.Values.notebooks.matchLabels $label)) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}
