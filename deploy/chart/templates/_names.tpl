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
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels that are ours to decide. Call with (list $ "api"). */}}
{{- define "bastion.ownLabels" -}}
{{- $root := index . 0 -}}
{{ include "bastion.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The labels of an object, each key once. Call with (list $ "api"). */}}
{{- define "bastion.labels" -}}
{{- $root := index . 0 -}}
{{- merge (include "bastion.ownLabels" . | fromYaml) ($root.Values.commonLabels | default dict) | toYaml -}}
{{- end -}}

{{/* Labels of pods that mean something to others: Zero to JupyterHub's policies let a pod with this one reach the hub. */}}
{{- define "bastion.meaningLabels" -}}
{{- if eq . "api" -}}
hub.jupyter.org/network-access-hub: "true"
{{- end -}}
{{- end -}}

{{/* The labels of a part's pods, each key once. Call with (list $ "api"). */}}
{{- define "bastion.podLabels" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $ours := merge (include "bastion.ownLabels" . | fromYaml) (include "bastion.meaningLabels" $part | fromYaml) -}}
{{- merge $ours ((get $root.Values $part).podLabels | default dict) ($root.Values.commonLabels | default dict) | toYaml -}}
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
http://{{ include "bastion.fullname" . }}-api-pods.{{ .Release.Namespace }}.svc
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

{{/* Namespaces where a policy of ours for notebook servers stands beside another that opens what servers need. */}}
{{- define "bastion.policyNamespaces" -}}
{{- $with := list -}}
{{- if and .Values.networkPolicy.besideSingleuserPolicy (not (include "bastion.clusterWide" .)) -}}
{{- range (include "bastion.namespaces" . | fromJson).in -}}
{{- if or (eq . $.Release.Namespace) (has . $.Values.networkPolicy.alsoBesideIn) -}}{{- $with = append $with . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "in" $with | toJson -}}
{{- end -}}

{{/* What a Role is called; a ClusterRole belongs to no namespace, so its name says of whose it is. */}}
{{- define "bastion.roleName" -}}
{{- if include "bastion.clusterWide" . -}}{{ .Release.Namespace }}-{{- end -}}
{{ include "bastion.fullname" . }}-bastion
{{- end -}}

{{/* The labels of notebook servers with SSH as one selector text: a=b,c=d. */}}
{{- define "bastion.selectorText" -}}
{{- $pairs := list -}}
{{- range $label := keys .Values.notebooks.matchLabels | sortAlpha -}}
{{- $pairs = append $pairs (printf "%s=%s" $label (get $.Values.notebooks.matchLabels $label)) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}
