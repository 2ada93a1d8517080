;; call: sent
(component
    (core module $m (func (export "f"))) (core instance $i (instantiate $m))
    (func (export "send") (canon lift (core func $i "f")))
    (func (export "draft") (canon lift (core func $i "f"))))
