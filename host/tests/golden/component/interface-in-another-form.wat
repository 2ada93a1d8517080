;; granted: tokens
;; call: f
(component
    (import "clawcoil:skill/tokens@0.1.0" (instance (export "get-token" (func (param "x" u8)))))
    (core module $m (func (export "f"))) (core instance $i (instantiate $m))
    (func (export "f") (canon lift (core func $i "f"))))
