{{/* The same for every pod: nobody's root, no privilege to gain. */}}
{{- define "bastion.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int .Values.podSecurity.user }}
runAsGroup: {{ int .Values.podSecurity.group }}
fsGroup: {{ int .Values.podSecurity.group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "bastion.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
privileged: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Replicas on different nodes and in different zones where there are several. Call with (list $ "api"). */}}
{{- define "bastion.spread" -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "bastion.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Where a part's pods may run. Call with its values. */}}
{{- define "bastion.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* A map of settings as environment variables, in a steady order. */}}
{{- define "bastion.environment" -}}
{{- range $name := keys . | sortAlpha }}
{{- $value := get $ $name }}
{{- /* Helm reads every number as a float, and writes large ones like 1.6e+07. */}}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
{{- $value = printf "%.0f" $value }}
{{- end }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}
