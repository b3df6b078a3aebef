{{/* IPv4 networks as numbers, so that values that cannot be true together are noticed. An address alone is a network of one. */}}
{{- define "bastion.networkSize" -}}
{{- $size := 1 -}}
{{- $bits := 32 -}}
{{- if contains "/" . -}}{{- $bits = atoi (last (splitList "/" .)) -}}{{- end -}}
{{- range until (sub 32 $bits | int) -}}{{- $size = mul $size 2 -}}{{- end -}}
{{- $size -}}
{{- end -}}

{{- define "bastion.networkFirst" -}}
{{- $number := 0 -}}
{{- range splitList "." (first (splitList "/" .)) -}}{{- $number = add (mul $number 256) (atoi .) -}}{{- end -}}
{{- sub $number (mod $number (include "bastion.networkSize" . | int64)) -}}
{{- end -}}

{{/* Which of two lists of networks have addresses in common: "A and B", for the first two; else nothing. Call with
(list ours theirs). Of IPv6 only networks that are written alike, and ::/0, are seen. */}}
{{- define "bastion.overlap" -}}
{{- $found := "" -}}
{{- $four := "^[0-9]{1,3}([.][0-9]{1,3}){3}(/([0-9]|[12][0-9]|3[0-2]))?$" -}}
{{- range $ours := index . 0 -}}
{{- range $theirs := index $ 1 -}}
{{- if not $found -}}
{{- if and (regexMatch $four $ours) (regexMatch $four $theirs) -}}
{{- $a := include "bastion.networkFirst" $ours | int64 -}}
{{- $b := include "bastion.networkFirst" $theirs | int64 -}}
{{- if and (lt $a (add $b (include "bastion.networkSize" $theirs | int64))) (lt $b (add $a (include "bastion.networkSize" $ours | int64))) -}}
{{- $found = printf "%s and %s" $ours $theirs -}}
{{- end -}}
{{- else if and (contains ":" $ours) (contains ":" $theirs) -}}
{{- if or (eq (lower $ours) (lower $theirs)) (eq $ours "::/0") (eq $theirs "::/0") -}}
{{- $found = printf "%s and %s" $ours $theirs -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{/* "true" when one of these policy peers is a network: whoever is no pod is let in by such a peer alone. */}}
{{- define "bastion.networkAmong" -}}
{{- range . -}}{{- if .ipBlock -}}true{{- end -}}{{- end -}}
{{- end -}}

{{/* The first of these policy peers that lets notebook servers in, as far as can be seen here: it names no pods and no
namespaces, or the notebooks' namespace without labels, or a network with their addresses. */}}
{{- define "bastion.peersWithNotebooks" -}}
{{- $root := index . 0 -}}
{{- $found := "" -}}
{{- $namespaces := (include "bastion.namespaces" $root | fromJson).in -}}
{{- range index . 1 -}}
{{- $block := dig "ipBlock" "cidr" "" . -}}
{{- $name := dig "namespaceSelector" "matchLabels" "kubernetes.io/metadata.name" "" . -}}
{{- if $block -}}
{{- if include "bastion.overlap" (list (list $block) $root.Values.notebooks.networks) -}}{{- $found = toJson . -}}{{- end -}}
{{- else if not .podSelector -}}
{{- if or (not .namespaceSelector) (has $name $namespaces) -}}{{- $found = toJson . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{/* Who may write an address that is believed must be no notebook server. */}}
{{- define "bastion.proxyChecks" -}}
{{- $values := .Values -}}
{{- $networks := $values.notebooks.networks -}}
{{- with include "bastion.overlap" (list $values.api.trustedProxies $networks) -}}
{{- if not $values.networkPolicy.enabled -}}
{{- fail (printf "api.trustedProxies and notebooks.networks overlap (%s), so without NetworkPolicies every notebook server may send the api an X-Forwarded-For that is believed: set networkPolicy.enabled to true, or narrow the two until they are apart, or leave api.trustedProxies empty." .) -}}
{{- end -}}
{{- with include "bastion.peersWithNotebooks" (list $ $values.networkPolicy.browsersFrom) -}}
{{- fail (printf "networkPolicy.browsersFrom lets notebook servers reach the api's public port (%s), where X-Forwarded-For from their network is believed (api.trustedProxies): name the ingress controller's namespace or pods there." .) -}}
{{- end -}}
{{- end -}}
{{- $headers := get $values.bastion.settings "BASTION_PROXY_NETWORKS" | default "" | toString | nospace | splitList "," -}}
{{- with include "bastion.overlap" (list $headers $networks) -}}
{{- if or (not $values.networkPolicy.enabled) (not $values.networkPolicy.sshFrom) -}}
{{- fail (printf "BASTION_PROXY_NETWORKS and notebooks.networks overlap (%s), so a notebook server may write a PROXY header with any address: let nobody but the proxy reach the bastion, with networkPolicy.enabled and networkPolicy.sshFrom, or narrow the two until they are apart." .) -}}
{{- end -}}
{{- with include "bastion.peersWithNotebooks" (list $ $values.networkPolicy.sshFrom) -}}
{{- fail (printf "networkPolicy.sshFrom lets notebook servers reach the bastion (%s), where PROXY headers from their network are believed (BASTION_PROXY_NETWORKS): name the proxy's namespace or pods there." .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
